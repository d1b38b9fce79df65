/* The load client's process: keeps commands in flight over many sockets and takes the time of each reply.
 *
 * In C, as pgbench is: it shares a core with PostgreSQL, and in Python a command cost it a third of what it cost PostgreSQL.
 * load_job.py says what it is told on standard input and what it answers on standard output.
 */
#define _GNU_SOURCE
#include "load_job.h"
#include "load_socket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NUMBERS 100000000u
#define UNDER_WAY_MAX (1u << 20)
#define OPENED_AT_ONCE 50
#define LAST_REPLIES_SECONDS 20
#define CLOSE_SECONDS 2
#define EVENTS_MAX 256
/* Frames leave in steps of a millisecond: more wakes would cost the client more than the server under test. */
#define STEP_SECONDS 0.001

struct paused {
    struct connection *connection;
    double due;
};

struct command {
    double sent_at; /* or when it was due; 0 is not under way */
    struct connection *connection;
    uint32_t number;
};

static struct job job;

/* What has become of it. */
static struct connection *connections;
static int events_fd, timer_fd;
static long opened, next_connection, next_frame, under_way, latency_count, latency_room, wrong;
static uint32_t next_number;
static struct command commands[UNDER_WAY_MAX]; /* by number */
static double *latencies, began, cpu_began, due, owed;
static uint64_t bytes_received;
static char first_wrong[HEAD_BYTES + 1];
static bool over;
static struct paused *paused;
static long paused_room, paused_first, paused_count;

static double cpu_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static double step_seconds(void)
{
    return 1 / job.rate > STEP_SECONDS ? 1 / job.rate : STEP_SECONDS;
}

static void is_wrong(const char *what)
{
    if (wrong++ == 0)
        snprintf(first_wrong, sizeof first_wrong, "%s", what);
}

void hung_up(struct connection *connection)
{
    epoll_ctl(events_fd, EPOLL_CTL_DEL, connection->fd, NULL);
    if (!over)
        is_wrong("a socket was closed");
    over = true;
}

static void send_command(struct connection *connection, double at)
{
    struct frame *frame = &job.frames[next_frame++ % job.frame_count];
    char digits[DIGITS + 1];
    snprintf(digits, sizeof digits, "%08u", next_number);
    for (int i = 0; i < frame->numbers; i++)
        memcpy(frame->bytes + frame->number_at[i], digits, DIGITS);
    struct command *command = &commands[next_number % UNDER_WAY_MAX];
    if (command->sent_at != 0) {
        fputs("load client: too many commands are under way\n", stderr);
        exit(1);
    }
    *command = (struct command){at, connection, next_number};
    under_way++;
    next_number = (next_number + 1) % NUMBERS;
    write_all(connection, frame->bytes, frame->size);
}

static struct connection *in_turn(void)
{
    return &connections[next_connection++ % job.sockets];
}

static void keep_latency(double latency)
{
    if (latency_count == latency_room) {
        latency_room = latency_room ? 2 * latency_room : 1 << 16;
        latencies = required(realloc(latencies, latency_room * sizeof *latencies));
    }
    latencies[latency_count++] = latency;
}

/* The number that is the whole of a text in quotation marks, from behind the first; or NUMBERS, which no command has. */
static uint32_t number_in(const char *text)
{
    uint32_t number = 0;
    for (int i = 0; i < DIGITS; i++) {
        if (text[i] < '0' || text[i] > '9')
            return NUMBERS;
        number = 10 * number + (text[i] - '0');
    }
    return text[DIGITS] == '"' ? number : NUMBERS;
}

/* Whether behind the number, as the next of its object, stands what the job expects. */
static bool is_expected(const char *behind)
{
    return *behind == ',' && strncmp(behind + 1, job.expect, strlen(job.expect)) == 0;
}

/* The command that has this number, if it was sent on this socket and is under way; or NULL. */
static struct command *command_of(const struct connection *connection, uint32_t number)
{
    struct command *command = &commands[number % UNDER_WAY_MAX];
    bool is_its = command->number == number && command->connection == connection;
    return is_its && command->sent_at != 0 ? command : NULL;
}

void answered(struct connection *connection)
{
    const char *label = "\"extID\":\"";
    connection->head[connection->head_size] = '\0';
    const char *found = strstr(connection->head, label), *ext_id = found ? found + strlen(label) : "";
    struct command *command = command_of(connection, number_in(ext_id));
    if (!connection->is_text)
        is_wrong("a message that is not text");
    else if (command == NULL || !is_expected(ext_id + DIGITS + 1))
        is_wrong(connection->head);
    if (command == NULL)
        return;
    keep_latency(now() - command->sent_at);
    command->sent_at = 0;
    under_way--;
    bytes_received += connection->message_size;
    if (job.count && latency_count >= job.count)
        over = true;
    if (over || job.rate > 0)
        return;
    if (job.pause_seconds > 0)
        paused[(paused_first + paused_count++) % paused_room] = (struct paused){connection, now() + job.pause_seconds};
    else
        send_command(job.window ? in_turn() : connection, now());
}

/* Late frames are made up for at once, each with the time when it was due. */
static void send_on_time(void)
{
    double step = step_seconds();
    uint64_t ticks;
    if (read(timer_fd, &ticks, sizeof ticks) < 0 || over)
        return;
    for (; due <= now(); due += step)
        for (owed += job.rate * step; owed >= 1; owed -= 1)
            send_command(in_turn(), due);
}

static void go_on(void)
{
    for (; paused_count > 0 && paused[paused_first].due <= now(); paused_count--) {
        struct connection *connection = paused[paused_first].connection;
        paused_first = (paused_first + 1) % paused_room;
        if (!over)
            send_command(connection, now());
    }
}

static bool is_over(void)
{
    return over;
}

static bool has_replied(void)
{
    return latency_count > 0 || wrong > 0;
}

static bool has_settled(void)
{
    return under_way == 0 || wrong > 0;
}

/* Sends and receives until `enough`, or for `limit` seconds; 0 is no limit. */
static void work(double limit, bool (*enough)(void))
{
    double until = limit > 0 ? now() + limit : 0;
    struct epoll_event events[EVENTS_MAX];
    while (!enough()) {
        double left = until > 0 ? until - now() : 1;
        if (left <= 0)
            return;
        if (paused_count > 0 && paused[paused_first].due - now() < left)
            left = paused[paused_first].due - now();
        int ready = epoll_wait(events_fd, events, EVENTS_MAX, left > 0 ? (int)(left * 1000) + 1 : 0);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == &timer_fd)
                send_on_time();
            else if (events[i].data.ptr == stdin) {
                over = true;
                getchar();
            } else
                receive(events[i].data.ptr);
        }
        go_on();
    }
}

static void watch(int fd, void *what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    epoll_ctl(events_fd, EPOLL_CTL_ADD, fd, &event);
}

static void begin(void)
{
    latency_count = 0;
    bytes_received = 0;
    began = now();
    cpu_began = cpu_seconds();
}

static void send_first(void)
{
    if (job.rate > 0) {
        double step = step_seconds();
        struct timespec every = {(time_t)step, (long)((step - (time_t)step) * 1e9)};
        timerfd_settime(timer_fd, 0, &(struct itimerspec){every, every}, NULL);
        due = now();
        owed = 0;
    } else
        for (long left = job.window ? job.window : job.sockets * job.in_flight; left > 0; left--)
            send_command(in_turn(), now());
}

/* The error, or NULL. */
static const char *open_all(void)
{
    const char *error = NULL;
    connections = required(calloc(job.sockets, sizeof *connections));
    while (opened < job.sockets && error == NULL) {
        long first = opened;
        while (opened < job.sockets && opened < first + OPENED_AT_ONCE && error == NULL)
            error = ask_to_upgrade(&connections[opened++], job.port, job.token);
        for (long i = first; i < opened && error == NULL; i++)
            if ((error = is_upgraded(&connections[i])) == NULL)
                watch(connections[i].fd, &connections[i]);
    }
    return error;
}

/* The server is waited for, for a while. */
static void close_all(void)
{
    double until = now() + CLOSE_SECONDS;
    for (long i = 0; i < opened; i++)
        say_good_bye(&connections[i]);
    for (long i = 0; i < opened; i++)
        close_by(&connections[i], until);
    free(connections);
}

static int by_size(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static void print_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar(*text >= ' ' && *text <= '~' ? *text : '?');
    }
    putchar('"');
}

static void run(void)
{
    long before = 0;
    begin();
    send_first();
    if (job.warm_seconds > 0) {
        work(job.warm_seconds, is_over);
        before = latency_count;
        begin();
    }
    if (job.seconds == 0 && job.count == 0)
        watch(STDIN_FILENO, stdin);
    work(job.seconds, is_over);
    if (latency_count == 0 && under_way > 0) /* a command that takes longer than the job is still measured once */
        work(LAST_REPLIES_SECONDS, has_replied);
    double took = now() - began, cpu = cpu_seconds() - cpu_began;
    long commands = latency_count, bytes = bytes_received;
    over = true;
    work(LAST_REPLIES_SECONDS, has_settled); /* so that the next job finds the server at rest */
    long in_all = before + latency_count;
    bool idle = !job.in_flight && !job.window && job.rate == 0;
    wrong += under_way + (latency_count == 0 && !idle);
    if (latency_count == 0)
        keep_latency(took);
    qsort(latencies, latency_count, sizeof *latencies, by_size);
    printf("{\"commands\":%ld,\"commands_in_all\":%ld,\"wrong\":%ld,\"seconds\":%.9f,\"cpu_seconds\":%.9f,\"bytes_received\":%ld,"
           "\"p50\":%.9f,\"p99\":%.9f,\"longest\":%.9f,\"first_wrong\":",
        commands, in_all, wrong, took, cpu, bytes, latencies[latency_count / 2], latencies[latency_count * 99 / 100],
        latencies[latency_count - 1]);
    print_text(first_wrong);
    puts("}");
}

static void prepare(void)
{
    opened = next_connection = next_frame = under_way = latency_count = wrong = paused_first = paused_count = 0;
    next_number = 0;
    over = false;
    first_wrong[0] = '\0';
    memset(commands, 0, sizeof commands);
    paused_room = job.sockets * job.in_flight + 1;
    paused = required(calloc(paused_room, sizeof *paused));
    events_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    watch(timer_fd, &timer_fd);
}

static void clean_up(void)
{
    close_all();
    close(events_fd);
    close(timer_fd);
    free(paused);
    forget_job(&job);
}

int main(void)
{
    while (read_job(&job)) {
        prepare();
        const char *error = open_all();
        fputs("{\"error\":", stdout);
        print_text(error ? error : "");
        puts("}");
        fflush(stdout);
        if (error == NULL)
            run();
        clean_up();
        fflush(stdout);
    }
    return 0;
}
