/* Pipes, and the table of a process's open ends of them. */
#include "kernel.h"

#define PIPE_SIZE 512
#define MAX_FILES 8
#define FIRST_FD 3 /* 0 to 2 are the console */

struct pipe {
	spinlock_t lock;
	unsigned long head, tail; /* bytes ever written and read */
	struct waitq readers, writers;
	char data[PIPE_SIZE];
};

struct files_struct {
	atomic_t count;
	struct pipe *pipe[MAX_FILES]; /* both ends of each pipe have one number */
};

static struct kmem_cache pipe_cachep = KMEM_CACHE(struct pipe), files_cachep = KMEM_CACHE(struct files_struct);

struct files_struct *files_alloc(void)
{
	struct files_struct *files = kmem_alloc(&files_cachep);

	files->count.counter = 1;
	return files;
}

/* A child shares its parent's table, and so its pipes. */
struct files_struct *files_get(struct files_struct *files)
{
	__atomic_add_fetch(&files->count.counter, 1, __ATOMIC_SEQ_CST);
	return files;
}

void files_put(struct files_struct *files)
{
	if (__atomic_sub_fetch(&files->count.counter, 1, __ATOMIC_SEQ_CST))
		return;
	for (int i = 0; i < MAX_FILES; i++)
		if (files->pipe[i])
			kmem_free(&pipe_cachep, files->pipe[i]);
	kmem_free(&files_cachep, files);
}

/* The number of a new pipe, or -EMFILE. */
int pipe_create(void)
{
	for (int i = 0; i < MAX_FILES; i++) {
		struct pipe *pipe;

		if (current->files->pipe[i])
			continue;
		pipe = kmem_alloc(&pipe_cachep);
		pipe->lock = SPIN_LOCK_UNLOCKED;
		waitq_init(&pipe->readers);
		waitq_init(&pipe->writers);
		current->files->pipe[i] = pipe;
		return FIRST_FD + i;
	}
	return -EMFILE;
}

/* Moves bytes without waiting. Returns their number: 0 if the pipe is empty (reading) or full (writing). */
static unsigned long transfer(struct pipe *pipe, char *buffer, unsigned long count, int write)
{
	unsigned long flags = spin_lock_irqsave(&pipe->lock), used = pipe->head - pipe->tail, i;

	count = min(count, write ? PIPE_SIZE - used : used);
	for (i = 0; i < count; i++)
		if (write)
			pipe->data[pipe->head++ % PIPE_SIZE] = buffer[i];
		else
			buffer[i] = pipe->data[pipe->tail++ % PIPE_SIZE];
	spin_unlock_irqrestore(&pipe->lock, flags);
	return count;
}

/* Moves at least one byte, and waits for it. Returns their number (at most 64), or a negative error. */
long pipe_io(int fd, unsigned long user, unsigned long count, int write)
{
	char buffer[64];
	struct pipe *pipe;
	struct waitq *mine, *theirs;
	unsigned long moved;

	if (fd < FIRST_FD || fd >= FIRST_FD + MAX_FILES || !(pipe = current->files->pipe[fd - FIRST_FD]))
		return -EINVAL;
	count = min(count, sizeof(buffer));
	if (!count)
		return 0;
	if (write && copy_user(buffer, user, count, 0))
		return -EFAULT;
	mine = write ? &pipe->writers : &pipe->readers;
	theirs = write ? &pipe->readers : &pipe->writers;
	while (!(moved = transfer(pipe, buffer, count, write))) {
		struct waiter waiter;

		prepare_to_wait(mine, &waiter);
		if (pipe->head - pipe->tail == (write ? PIPE_SIZE : 0))
			schedule();
		finish_wait(mine, &waiter);
	}
	wake_up(theirs);
	if (!write && copy_user(buffer, user, moved, 1))
		return -EFAULT;
	return moved;
}
