/* The job that load_job.py tells: its line, then its frames. */
#include <stdbool.h>

struct frame;

struct job {
    int port;
    long sockets, in_flight, window;
    double rate, seconds, warm_seconds;
    long count;
    double pause_seconds;
    char expect[256], token[8192];
    long frame_count;
    struct frame *frames;
};

/* False at the end of the input; what is no job ends the process. */
bool read_job(struct job *job);
void forget_job(struct job *job);
