/* A WebSocket client that costs next to nothing: frames prepared beforehand, replies measured but not parsed. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Stands in a frame for a number of its own, as load_job.py has it. */
#define NUMBER "########"
#define DIGITS 8
#define NUMBERS_IN_FRAME_MAX 4
/* What is kept of a message, to see its number and its status. */
#define HEAD_BYTES 256
#define HEADER_BYTES_MAX 10
#define CONTROL_BYTES_MAX 125

struct frame {
    char *bytes;
    size_t size;
    size_t number_at[NUMBERS_IN_FRAME_MAX];
    int numbers;
};

struct connection {
    int fd;
    unsigned char header[HEADER_BYTES_MAX];
    int header_size;
    uint64_t missing; /* of the payload that is being received */
    bool is_text; /* the message */
    size_t message_size;
    char head[HEAD_BYTES + 1]; /* of the message */
    size_t head_size;
    char control[CONTROL_BYTES_MAX]; /* a ping's payload, which may come between the fragments of the message */
    size_t control_size;
};

/* Both give the error, or NULL. The second waits for the answer to the first; what the socket receives then are frames. */
const char *ask_to_upgrade(struct connection *connection, int port, const char *token);
const char *is_upgraded(struct connection *connection);

/* A text frame with the mask 0, which leaves the text as it is. */
struct frame framed(const char *text, size_t size);

/* Waits while the server takes no more. */
void write_all(struct connection *connection, const char *bytes, size_t size);

/* Takes what has come, and calls the two below. */
void receive(struct connection *connection);

void say_good_bye(struct connection *connection);

/* Waits for the server to hang up, until that time on the clock. */
void close_by(struct connection *connection, double until);

/* For whoever uses this to define: a message is complete; the server has ended the connection. */
void answered(struct connection *connection);
void hung_up(struct connection *connection);

/* Seconds on a clock that never goes back. */
double now(void);

/* The memory, or the end of the process. */
void *required(void *memory);
