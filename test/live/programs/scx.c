/*
 * Loads a scheduler as sched_ext (6.12) takes them, with nothing of its own but a name: the kernel then runs all ordinary
 * threads from one queue, by what it does where a scheduler has no say. So it needs no BPF program, and neither a compiler
 * nor a library for one: only which type of the kernel's own BTF the scheduler is described by.
 */
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char *btf;
static struct btf_header *header;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int bpf(int command, union bpf_attr *attr)
{
	int result = syscall(SYS_bpf, command, attr, sizeof *attr);
	if (result < 0)
		fail("bpf");
	return result;
}

static void read_btf(void)
{
	int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY);
	size_t room = 64 << 20, size = 0;
	ssize_t count;
	if (fd < 0 || !(btf = malloc(room)))
		fail("/sys/kernel/btf/vmlinux");
	while ((count = read(fd, btf + size, room - size)) > 0)
		size += count;
	header = (struct btf_header *)btf;
}

static const char *text(__u32 offset)
{
	return btf + header->hdr_len + header->str_off + offset;
}

/* Bytes behind a type's own record (Documentation/bpf/btf.rst). */
static size_t details(const struct btf_type *type)
{
	size_t count = BTF_INFO_VLEN(type->info);
	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return count * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return count * sizeof(struct btf_enum);
	case BTF_KIND_ENUM64:
		return count * 12;
	case BTF_KIND_FUNC_PROTO:
		return count * sizeof(struct btf_param);
	case BTF_KIND_DATASEC:
		return count * sizeof(struct btf_var_secinfo);
	default:
		return 0;
	}
}

static const struct btf_type *structure(const char *name, __u32 *id)
{
	char *at = btf + header->hdr_len + header->type_off, *end = at + header->type_len;
	for (*id = 1; at < end; ++*id) {
		const struct btf_type *type = (const struct btf_type *)at;
		if (BTF_INFO_KIND(type->info) == BTF_KIND_STRUCT && !strcmp(text(type->name_off), name))
			return type;
		at += sizeof *type + details(type);
	}
	fprintf(stderr, "the kernel has no struct %s\n", name);
	exit(1);
}

static __u32 offset(const struct btf_type *type, const char *name)
{
	const struct btf_member *member = (const struct btf_member *)(type + 1);
	for (int left = BTF_INFO_VLEN(type->info); left > 0; left--, member++)
		if (!strcmp(text(member->name_off), name))
			return BTF_MEMBER_BIT_OFFSET(member->offset) / 8;
	fprintf(stderr, "no member %s\n", name);
	exit(1);
}

/* Whoever makes such a map has to have types of its own, if only an int. */
static int own_types(void)
{
	struct {
		struct btf_header header;
		struct btf_type type;
		__u32 encoding;
		char strings[5];
	} __attribute__((packed)) own = {
		{ BTF_MAGIC, BTF_VERSION, 0, sizeof own.header, 0, 16, 16, sizeof own.strings },
		{ 1, BTF_KIND_INT << 24, { 4 } },
		32,
		"\0int",
	};
	union bpf_attr attr = { 0 };
	attr.btf = (__u64)(unsigned long)&own;
	attr.btf_size = sizeof own;
	return bpf(BPF_BTF_LOAD, &attr);
}

int main(void)
{
	union bpf_attr attr;
	__u32 id, other, key = 0;
	read_btf();
	const struct btf_type *value = structure("bpf_struct_ops_sched_ext_ops", &id);
	__u32 name = offset(value, "data") + offset(structure("sched_ext_ops", &other), "name");
	char *bytes = calloc(1, value->size);

	memset(&attr, 0, sizeof attr);
	attr.map_type = BPF_MAP_TYPE_STRUCT_OPS;
	attr.key_size = sizeof key;
	attr.value_size = value->size;
	attr.max_entries = 1;
	attr.btf_fd = own_types();
	attr.btf_vmlinux_value_type_id = id;
	int map = bpf(BPF_MAP_CREATE, &attr);

	strcpy(bytes + name, "nothing");
	memset(&attr, 0, sizeof attr);
	attr.map_fd = map;
	attr.key = (__u64)(unsigned long)&key;
	attr.value = (__u64)(unsigned long)bytes;
	bpf(BPF_MAP_UPDATE_ELEM, &attr);
	puts("loaded");
	return 0;
}
