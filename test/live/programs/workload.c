/*
 * Loads for test guests, one static program: `workload KIND NAME [UID]`. Each counts what it has done in a page of
 * /run/progress/NAME, and says WORKLOAD ERROR on the console when the system treats it in a way that a program
 * would notice: an interrupted call, a short read, a lost byte, a child gone astray.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t *progress;
static const char *name;

static void fail(const char *what)
{
	char line[200];
	int fd = open("/dev/console", O_WRONLY);
	int n = snprintf(line, sizeof line, "WORKLOAD ERROR %s: %s: %s\n", name, what, strerror(errno));

	if (fd >= 0 && write(fd, line, n) != n)
		_exit(3);
	_exit(2);
}

static volatile uint64_t *counter(const char *of)
{
	char path[100];
	int fd;
	void *page;

	snprintf(path, sizeof path, "/run/progress/%s", of);
	fd = open(path, O_RDWR | O_CREAT, 0644);
	if (fd < 0 || ftruncate(fd, 4096))
		fail("progress file");
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		fail("progress page");
	close(fd);
	/* By which a host that looks at all of the guest's memory knows the page. */
	snprintf((char *)page + 64, 64, "workload progress %s", of);
	return page;
}

static void count(void)
{
	__atomic_fetch_add(progress, 1, __ATOMIC_RELAXED);
}

/* The same sum each time: registers come back as they were. */
static void burn(void)
{
	uint64_t first = 0;

	for (;;) {
		uint64_t sum = 88172645463325252;

		for (volatile int i = 0; i < 10000; i++) {
			sum ^= sum << 13;
			sum ^= sum >> 7;
			sum ^= sum << 17;
		}
		if (first == 0)
			first = sum;
		if (sum != first)
			fail("sum");
		count();
	}
}

static int64_t now(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_MONOTONIC, &t))
		fail("clock_gettime");
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Never cut short, nor ended early. */
static void nap(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
	int64_t begin = now();

	if (nanosleep(&t, NULL))
		fail("nanosleep");
	if (now() - begin < ms * 1000000LL)
		fail("woken too early");
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static long milliseconds(const char *variable)
{
	const char *value = getenv(variable);

	return value ? atol(value) : 500;
}

/* Rests for REST_MS and up to half of it more, at random and so in nobody's step; then runs for BURST_MS. */
static void bursts(void)
{
	long rest = milliseconds("REST_MS"), burst = milliseconds("BURST_MS"), end;

	srandom(time(NULL) ^ getpid());
	for (;;) {
		nap(rest + random() % (rest / 2 + 1));
		end = now_ms() + burst;
		do {
			count();
			for (volatile int i = 0; i < 2000; i++)
				;
		} while (now_ms() < end);
	}
}

/*
 * Short jobs: when the host writes the number of the next one into word 1 of the page, sleeps for a while, at random, and
 * then computes as much as word 2 says. Word 3 is how long that took, ns, from when it was to wake.
 */
static void jobs(void)
{
	srandom(time(NULL) ^ getpid());
	for (uint64_t round = 1;; round++) {
		struct timespec due;
		int64_t begin;

		while (progress[1] != round)
			nap(1);
		begin = now() + (20 + random() % 40) * 1000000LL;
		due = (struct timespec){ begin / 1000000000, begin % 1000000000 };
		if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL))
			fail("clock_nanosleep");
		for (uint64_t i = 0; i < progress[2]; i++)
			for (volatile int n = 0; n < 1000; n++)
				;
		progress[3] = now() - begin;
		count();
	}
}

/*
 * Requests, one every 10 ms: each computes as much as word 1 of the page says, which the host writes. One that comes late
 * is answered late; what more than a second of them would take is given up.
 */
static void service(void)
{
	int64_t due = now();

	for (;;) {
		int64_t left;

		for (uint64_t i = 0, loops = progress[1]; i < loops; i++)
			for (volatile int n = 0; n < 1000; n++)
				;
		count();
		due += 10000000;
		left = due - now();
		if (left < -1000000000LL)
			due = now();
		else if (left > 0)
			nap(left / 1000000);
	}
}

static void sleeper(void)
{
	for (;;) {
		nap(20);
		count();
	}
}

/* Two processes that pass numbers to and fro: each step checks that none is lost or torn. */
static void pingpong(void)
{
	int there[2], back[2];
	uint64_t value, expected = 0;

	if (pipe(there) || pipe(back))
		fail("pipe");
	if (fork() == 0) {
		prctl(PR_SET_NAME, "echo");
		close(there[1]);
		close(back[0]);
		for (;;) {
			if (read(there[0], &value, sizeof value) != sizeof value)
				fail("read in echo");
			if (write(back[1], &value, sizeof value) != sizeof value)
				fail("write in echo");
		}
	}
	close(there[0]);
	close(back[1]);
	for (;;) {
		expected++;
		if (write(there[1], &expected, sizeof expected) != sizeof expected)
			fail("write");
		if (read(back[0], &value, sizeof value) != sizeof value || value != expected)
			fail("read");
		count();
	}
}

static void *thread(void *argument)
{
	pthread_mutex_t *lock = argument;
	static volatile int inside;

	for (;;) {
		if (pthread_mutex_lock(lock))
			fail("lock");
		if (inside++)
			fail("two have the lock");
		for (volatile int i = 0; i < 5000; i++)
			;
		inside--;
		if (pthread_mutex_unlock(lock))
			fail("unlock");
		for (volatile int i = 0; i < 5000; i++)
			;
		count();
	}
	return NULL;
}

static void threads(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_t id;

	for (int i = 0; i < 3; i++)
		if (pthread_create(&id, NULL, thread, &lock))
			fail("pthread_create");
	thread(&lock);
}

/* Fork, exec, exit, wait: over and over. */
static void forker(void)
{
	int status;
	pid_t child;

	for (;;) {
		child = fork();
		if (child < 0)
			fail("fork");
		if (child == 0) {
			execl("/bin/workload", "workload", "exit", "exit", (char *)NULL);
			fail("exec");
		}
		if (waitpid(child, &status, 0) != child)
			fail("waitpid");
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			fail("child");
		count();
	}
}

static void faults(void)
{
	const size_t size = 64 * 4096;

	for (;;) {
		char *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (pages == MAP_FAILED)
			fail("mmap");
		for (size_t i = 0; i < size; i += 4096)
			pages[i] = i >> 12;
		for (size_t i = 0; i < size; i += 4096)
			if (pages[i] != (char)(i >> 12))
				fail("page content");
		munmap(pages, size);
		count();
	}
}

/* In user mode for a while, then in a call that looks in its own loop whether it should make way. */
static void unmaps(void)
{
	const size_t size = 64 * 4096;

	for (;;) {
		char *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

		if (pages == MAP_FAILED)
			fail("mmap");
		for (volatile int i = 0; i < 50000; i++)
			;
		munmap(pages, size);
		count();
	}
}

static void file_rounds(const char *directory)
{
	char block[4096], again[4096], path[100];

	snprintf(path, sizeof path, "%s/%s.data", directory, name);
	for (int round = 0;; round++) {
		int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

		memset(block, round, sizeof block);
		if (fd < 0 || write(fd, block, sizeof block) != sizeof block)
			fail("write file");
		if (pread(fd, again, sizeof again, 0) != sizeof again || memcmp(block, again, sizeof block))
			fail("read file");
		close(fd);
		count();
	}
}

static void files(void)
{
	file_rounds("/run");
}

/* Blocks that go to a disk and come back from it: past the page cache, so that each waits for the device. */
static void disk(void)
{
	static char block[4096] __attribute__((aligned(4096))), again[4096] __attribute__((aligned(4096)));
	char path[100];
	int fd;

	snprintf(path, sizeof path, "/mnt/%s.data", name);
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0644);
	if (fd < 0)
		fail("open on disk");
	for (int round = 0;; round++) {
		off_t at = round % 64 * (off_t)sizeof block;

		memset(block, round, sizeof block);
		if (pwrite(fd, block, sizeof block, at) != sizeof block)
			fail("write to disk");
		if (round % 16 == 0 && fdatasync(fd))
			fail("sync of disk");
		if (pread(fd, again, sizeof again, at) != sizeof again || memcmp(block, again, sizeof block))
			fail("read from disk");
		count();
	}
}

/* In one call: the kernel gives less than all of it only to one that is interrupted. */
static void whole(int fd, char *bytes, size_t size, int out)
{
	ssize_t n = out ? send(fd, bytes, size, 0) : recv(fd, bytes, size, MSG_WAITALL);

	if (n != (ssize_t)size)
		fail(out ? "send" : "receive");
}

/* Two processes over loopback TCP: what is sent comes back, byte for byte. */
static void tcp(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof address;
	static char message[20000], answer[20000];
	int listener = socket(AF_INET, SOCK_STREAM, 0), there;

	if (listener < 0 || bind(listener, (void *)&address, length) || listen(listener, 1) ||
	    getsockname(listener, (void *)&address, &length))
		fail("listen");
	if (fork() == 0) {
		prctl(PR_SET_NAME, "tcp-echo");
		there = accept(listener, NULL, NULL);
		if (there < 0)
			fail("accept");
		for (;;) {
			whole(there, answer, sizeof answer, 0);
			whole(there, answer, sizeof answer, 1);
		}
	}
	there = socket(AF_INET, SOCK_STREAM, 0);
	if (there < 0 || connect(there, (void *)&address, length))
		fail("connect");
	for (int round = 0;; round++) {
		memset(message, round, sizeof message);
		whole(there, message, sizeof message, 1);
		whole(there, answer, sizeof answer, 0);
		if (memcmp(message, answer, sizeof message))
			fail("echo");
		count();
	}
}

static void say(const char *what)
{
	puts(what);
	fflush(stdout);
}

/*
 * What a debugger does to a process: makes it stop (`attach`: by a signal, `seize`: by a trap), looks at its registers,
 * waits for /run/go, lets it go. `keep` is its tracer and nothing else until it is killed.
 */
static int trace(const char *way, pid_t pid)
{
	struct user_regs_struct registers;
	int status, attach = !strcmp(way, "attach");

	name = way;
	if (ptrace(attach ? PTRACE_ATTACH : PTRACE_SEIZE, pid, NULL, NULL))
		fail("become its tracer");
	say("traces");
	if (!strcmp(way, "keep"))
		for (;;)
			pause();
	if (!attach && ptrace(PTRACE_INTERRUPT, pid, NULL, NULL))
		fail("interrupt");
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		fail("wait for the stop");
	if (ptrace(PTRACE_GETREGS, pid, NULL, &registers) || registers.rip == 0)
		fail("registers");
	say("stopped");
	while (access("/run/go", F_OK))
		usleep(5000);
	if (ptrace(PTRACE_DETACH, pid, NULL, NULL))
		fail("detach");
	say("let go");
	return 0;
}

#define STORM 10

static void *exec_by_thread(void *unused)
{
	(void)unused;
	nap(1);
	execl("/bin/workload", "workload", "burner", "stormed", (char *)NULL);
	fail("exec by a thread");
	return NULL;
}

/* Ends by itself, by another program, or never: by its parent's SIGKILL then. */
static void stormed(long what)
{
	pthread_t id;

	switch (what) {
	case 0:
		_exit(0);
	case 1:
		execl("/bin/workload", "workload", "exit", "exit", (char *)NULL);
		fail("exec");
	case 2:
		/* The leader's pid goes to a thread that is not the leader. */
		if (pthread_create(&id, NULL, exec_by_thread, NULL))
			fail("pthread_create");
		for (;;)
			pause();
	case 3:
		for (;;)
			nap(1);
	default:
		for (;;)
			;
	}
}

/*
 * Forks, executes, exits, stops, continues and kills its children at random, until there is /run/calm. Then it kills
 * and reaps all of them and ends: one that does not die keeps it.
 */
static void storm(void)
{
	struct { pid_t pid; int killed; } children[STORM] = { 0 };
	int status;

	srandom(time(NULL) ^ getpid());
	while (access("/run/calm", F_OK)) {
		int i = random() % STORM;

		if (children[i].pid == 0) {
			long what = random() % 6;

			children[i].pid = fork();
			if (children[i].pid < 0)
				fail("fork");
			if (children[i].pid == 0)
				stormed(what);
			children[i].killed = 0;
		} else if (waitpid(children[i].pid, &status, WNOHANG) == children[i].pid) {
			/* It may have ended by itself, but only as it was to. */
			if (WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) != SIGKILL)
				fail("child");
			children[i].pid = 0;
			count();
		} else if (!children[i].killed) {
			static const int signals[] = { SIGSTOP, SIGCONT, SIGCONT, SIGKILL, SIGKILL };
			int which = signals[random() % 5];

			children[i].killed = which == SIGKILL;
			if (kill(children[i].pid, which))
				fail("kill");
		}
		nap(random() % 20);
	}
	for (int i = 0; i < STORM; i++)
		if (children[i].pid)
			kill(children[i].pid, SIGKILL);
	while (wait(&status) > 0)
		;
	exit(0);
}

/*
 * Has a child that sleeps; when the host writes the number of the round into word 1 of the page, kills and reaps it and
 * lets RCU free what it was, then uses that memory again. Words 2 and 3 tell the host the child's pid and the round.
 */
static void reaper(void)
{
	cpu_set_t second;
	int status;

	CPU_ZERO(&second);
	CPU_SET(1, &second);
	if (sched_setaffinity(0, sizeof second, &second))
		fail("sched_setaffinity");
	for (uint64_t round = 1;; round++) {
		pid_t child = fork();

		if (child == 0)
			for (;;)
				nap(1);
		progress[2] = child;
		progress[3] = round;
		while (progress[1] != round)
			nap(1);
		if (kill(child, SIGKILL) || waitpid(child, &status, 0) != child)
			fail("kill");
		/* membarrier(MEMBARRIER_CMD_GLOBAL) */
		if (syscall(SYS_membarrier, 1, 0, 0))
			fail("membarrier");
		nap(1);
		for (int i = 0; i < 20; i++) {
			child = fork();
			if (child == 0)
				_exit(0);
			if (waitpid(child, &status, 0) != child)
				fail("waitpid");
		}
		count();
	}
}

/* Long enough for a hold to come in the middle of it. */
#define LONG_CALL (1 << 20)

/* A call that ends as if nothing had happened: all of it done, and not interrupted. */
static void done(const char *call, ssize_t got, ssize_t wanted)
{
	if (got != wanted)
		fail(call);
	count();
	nap(2);
}

static int pipe_ends[2], socket_ends[2];

static void long_read(char *buffer)
{
	int fd = open("/dev/urandom", O_RDONLY);

	if (fd < 0)
		fail("/dev/urandom");
	for (;;)
		done("read", read(fd, buffer, LONG_CALL), LONG_CALL);
}

static void long_getrandom(char *buffer)
{
	for (;;)
		done("getrandom", getrandom(buffer, LONG_CALL, 0), LONG_CALL);
}

static void long_write(char *buffer)
{
	for (;;)
		done("write to a pipe", write(pipe_ends[1], buffer, LONG_CALL), LONG_CALL);
}

/* Of a pipe any part may come, but never none. */
static void pipe_reader(char *buffer)
{
	for (;;)
		if (read(pipe_ends[0], buffer, LONG_CALL) <= 0)
			fail("read from a pipe");
}

static void long_send(char *buffer)
{
	struct iovec part = { buffer, LONG_CALL };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	for (;;)
		done("sendmsg", sendmsg(socket_ends[1], &message, 0), LONG_CALL);
}

static void long_receive(char *buffer)
{
	for (;;)
		done("recv", recv(socket_ends[0], buffer, LONG_CALL, MSG_WAITALL), LONG_CALL);
}

static void waits(char *buffer)
{
	struct timespec moment = { 0, 15000000 };
	struct epoll_event event;
	int word = 0, epoll = epoll_create1(0);

	(void)buffer;
	if (epoll < 0)
		fail("epoll_create1");
	for (;;) {
		done("epoll_wait", epoll_wait(epoll, &event, 1, 15), 0);
		done("ppoll", ppoll(NULL, 0, &moment, NULL), 0);
		if (syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &moment, NULL, 0) != -1 || errno != ETIMEDOUT)
			fail("futex");
	}
}

static void *call_thread(void *run)
{
	((void (*)(char *))run)(malloc(LONG_CALL));
	return NULL;
}

/* Calls that a signal would cut short or interrupt, were there one: a thread for each. */
static void calls(void)
{
	static void (*const all[])(char *) = {
		long_read, long_getrandom, long_write, pipe_reader, long_send, long_receive, waits,
	};
	pthread_t id;

	if (pipe(pipe_ends) || socketpair(AF_UNIX, SOCK_STREAM, 0, socket_ends))
		fail("pipe, socketpair");
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (pthread_create(&id, NULL, call_thread, (void *)all[i]))
			fail("pthread_create");
	for (;;)
		nap(1000);
}

int main(int argc, char **argv)
{
	static const struct { const char *kind; void (*run)(void); } kinds[] = {
		{ "burner", burn }, { "sleeper", sleeper }, { "bursts", bursts }, { "jobs", jobs }, { "service", service }, { "pipe", pingpong }, { "threads", threads },
		{ "forker", forker }, { "faults", faults }, { "unmaps", unmaps }, { "files", files },
		{ "disk", disk }, { "tcp", tcp }, { "reaper", reaper }, { "calls", calls }, { "storm", storm },
	};

	if (argc < 3)
		return 1;
	if (!strcmp(argv[1], "exit"))
		return 0;
	if (!strcmp(argv[1], "progress")) {
		for (int i = 2; i < argc; i++) {
			name = argv[i];
			printf("%s=%llu\n", name, (unsigned long long)*counter(name));
		}
		return 0;
	}
	/* workload fifo|other PID: what busybox has no chrt for. */
	if (!strcmp(argv[1], "fifo") || !strcmp(argv[1], "other")) {
		int fifo = argv[1][0] == 'f';
		struct sched_param param = { .sched_priority = fifo ? 10 : 0 };

		return sched_setscheduler(atoi(argv[2]), fifo ? SCHED_FIFO : SCHED_OTHER, &param) ? 1 : 0;
	}
	if (!strcmp(argv[1], "trace") && argc > 3)
		return trace(argv[2], atoi(argv[3]));
	name = argv[2];
	prctl(PR_SET_NAME, name);
	progress = counter(name);
	if (argc > 3 && setuid(atoi(argv[3])))
		fail("setuid");
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(argv[1], kinds[i].kind))
			kinds[i].run();
	return 1;
}
