/*
 * `agent HOST PORT NAME INTERVAL_MS`: a scheduler's part inside a guest. Every so many ms it tells a coordinator over TCP
 * which processes of /proc are runnable, in a line `look PID:KIND:COMM ...` (KIND is `k` for a thread of the kernel, `u`
 * for all others), and does what it is told in a line `stop PID` or `cont PID`. When the coordinator is gone it lets go on
 * whoever it has stopped, and ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* As the coordinator takes them: a line and the processes in it. */
#define LINE 4096
#define MOST 64
#define PF_KTHREAD 0x00200000

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int connected(const char *host, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	if (fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
	    connect(fd, (void *)&address, sizeof address) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) {
		perror("agent");
		exit(1);
	}
	return fd;
}

static int told(int fd, const char *text, size_t size)
{
	return send(fd, text, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* Appends a process if it is runnable; 0 where there is no room. */
static int add(char *line, size_t *used, const char *pid)
{
	char path[64], stat[512], comm[17], *open_at, *close_at, state;
	unsigned flags;
	int fd, n;

	snprintf(path, sizeof path, "/proc/%.10s/stat", pid);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return 1;
	n = read(fd, stat, sizeof stat - 1);
	close(fd);
	if (n <= 0)
		return 1;
	stat[n] = 0;
	open_at = strchr(stat, '(');
	close_at = strrchr(stat, ')');
	if (!open_at || !close_at ||
	    sscanf(close_at + 1, " %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2 || state != 'R')
		return 1;
	*close_at = 0;
	snprintf(comm, sizeof comm, "%s", open_at + 1);
	/* A blank would end it. */
	for (char *c = comm; *c; c++)
		if (*c <= ' ' || *c > '~')
			*c = '?';
	n = snprintf(line + *used, LINE - 1 - *used, " %.10s:%c:%s", pid, flags & PF_KTHREAD ? 'k' : 'u', comm);
	if (n >= (int)(LINE - 1 - *used))
		return 0;
	*used += n;
	return 1;
}

static int look(int fd, DIR *proc)
{
	static char line[LINE];
	size_t used = sprintf(line, "look");
	struct dirent *entry;
	int found = 0;

	rewinddir(proc);
	while (found < MOST && (entry = readdir(proc)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9') {
			size_t before = used;

			if (!add(line, &used, entry->d_name))
				break;
			found += used > before;
		}
	line[used++] = '\n';
	return told(fd, line, used);
}

static pid_t stopped[MOST];

static void order(const char *line)
{
	char verb[5];
	int pid;

	if (sscanf(line, "%4s %d", verb, &pid) != 2 || pid < 2)
		return;
	if (!strcmp(verb, "stop")) {
		/* Whoever cannot be let go later is not stopped. */
		for (int i = 0; i < MOST; i++)
			if (stopped[i] == 0 || stopped[i] == pid) {
				if (kill(pid, SIGSTOP) == 0)
					stopped[i] = pid;
				return;
			}
	} else if (!strcmp(verb, "cont")) {
		kill(pid, SIGCONT);
		for (int i = 0; i < MOST; i++)
			if (stopped[i] == pid)
				stopped[i] = 0;
	}
}

/* 0 when the coordinator is gone. */
static int orders(int fd)
{
	static char text[LINE];
	static size_t used;
	ssize_t n = recv(fd, text + used, sizeof text - 1 - used, 0);
	char *end;

	if (n <= 0)
		return 0;
	used += n;
	text[used] = 0;
	while ((end = strchr(text, '\n'))) {
		*end = 0;
		order(text);
		used -= end + 1 - text;
		memmove(text, end + 1, used + 1);
	}
	return used < sizeof text - 1;
}

int main(int argc, char **argv)
{
	char hello[100];
	DIR *proc = opendir("/proc");
	int64_t interval, due;
	int fd, there = 1;

	if (argc != 5 || !proc || (interval = atol(argv[4]) * 1000000LL) <= 0)
		return 2;
	fd = connected(argv[1], atoi(argv[2]));
	there = told(fd, hello, snprintf(hello, sizeof hello, "hello %.20s\n", argv[3]));
	for (due = now_ns(); there;) {
		struct pollfd readable = { .fd = fd, .events = POLLIN };
		int64_t left = due - now_ns();
		struct timespec rest = { left / 1000000000, left % 1000000000 };

		if (left <= 0) {
			there = look(fd, proc);
			due += interval;
			/* What was missed is not made up for. */
			if (due < now_ns())
				due = now_ns() + interval;
		} else if (ppoll(&readable, 1, &rest, NULL) > 0) {
			there = orders(fd);
		}
	}
	for (int i = 0; i < MOST; i++)
		if (stopped[i])
			kill(stopped[i], SIGCONT);
	return 0;
}
