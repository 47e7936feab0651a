/*
 * `kexec load|panic IMAGE INITRD COMMAND-LINE` makes a kernel the next, or the one that runs after a panic, and
 * `kexec run` starts the next at once, without a word to anybody.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "run")) {
		syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	} else if (argc == 5) {
		unsigned long flags = strcmp(argv[1], "panic") ? 0 : KEXEC_FILE_ON_CRASH;
		int kernel = open(argv[2], O_RDONLY), initrd = open(argv[3], O_RDONLY);

		if (!syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[4]) + 1, argv[4], flags))
			return 0;
	}
	perror("kexec");
	return 1;
}
