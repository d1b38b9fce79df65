#define _GNU_SOURCE
#include "load_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* A server that answers nothing, or takes nothing, is not waited for longer. */
#define PATIENCE_SECONDS 20
#define REQUEST_BYTES_MAX 16384
#define HEAD_OF_ANSWER_BYTES_MAX 4096
#define RECEIVE_BYTES (256 * 1024)
/* Two, and the mask's four, which are 0. */
#define PONG_HEADER_BYTES 6

enum { FIN = 0x80, MASKED = 0x80, SIZE = 0x7f, TEXT = 0x1, CONTROL = 0x8, OPCODE = 0xf, CLOSE = 0x8, PING = 0x9, PONG = 0xa };

double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

void *required(void *memory)
{
    if (memory == NULL) {
        perror("load client");
        exit(1);
    }
    return memory;
}

const char *ask_to_upgrade(struct connection *connection, int port, const char *token)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = PATIENCE_SECONDS};
    static char request[REQUEST_BYTES_MAX];
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0)
        return strerror(errno);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(connection->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0)
        return strerror(errno);
    int size = snprintf(request, sizeof request,
        "GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: YmVuY2htYXJrIHNvY2tldA==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
        *token ? "Authorization: Bearer " : "", token, *token ? "\r\n" : "");
    write_all(connection, request, size);
    return NULL;
}

const char *is_upgraded(struct connection *connection)
{
    static char head[HEAD_OF_ANSWER_BYTES_MAX];
    size_t size = 0; /* byte by byte: behind the head frames may follow */
    while (size < 4 || memcmp(head + size - 4, "\r\n\r\n", 4) != 0) {
        if (size == sizeof head - 1)
            return "the answer to the upgrade is too long";
        ssize_t took = recv(connection->fd, head + size, 1, 0);
        if (took <= 0)
            return took == 0 ? "the server hung up" : strerror(errno);
        head[++size] = '\0';
    }
    if (strncmp(head, "HTTP/1.1 101", 12) != 0) {
        head[strcspn(head, "\r")] = '\0';
        return head;
    }
    return NULL;
}

struct frame framed(const char *text, size_t size)
{
    int header = size < 126 ? 2 : size < 65536 ? 4 : 10;
    struct frame frame = {.size = header + 4 + size};
    frame.bytes = required(calloc(1, frame.size));
    frame.bytes[0] = (char)(FIN | TEXT);
    frame.bytes[1] = (char)(MASKED | (header == 2 ? size : header == 4 ? 126 : 127));
    for (int i = header - 1; i >= 2; i--)
        frame.bytes[i] = (char)(size >> 8 * (header - 1 - i));
    char *payload = memcpy(frame.bytes + header + 4, text, size), *end = payload + size, *at = payload;
    while (frame.numbers < NUMBERS_IN_FRAME_MAX && (at = memmem(at, end - at, NUMBER, DIGITS)) != NULL) {
        frame.number_at[frame.numbers++] = at - frame.bytes;
        at += DIGITS;
    }
    return frame;
}

void write_all(struct connection *connection, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(connection->fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) /* the end of the connection is seen where it is read */
            return;
        bytes += sent;
        size -= sent;
    }
}

static void pong(struct connection *connection)
{
    char frame[PONG_HEADER_BYTES + CONTROL_BYTES_MAX] = {(char)(FIN | PONG), (char)(MASKED | connection->control_size)};
    memcpy(frame + PONG_HEADER_BYTES, connection->control, connection->control_size);
    write_all(connection, frame, PONG_HEADER_BYTES + connection->control_size);
}

static void frame_ended(struct connection *connection)
{
    unsigned first = connection->header[0];
    if ((first & OPCODE) == PING)
        pong(connection);
    else if ((first & OPCODE) == CLOSE)
        hung_up(connection);
    else if (!(first & CONTROL) && (first & FIN))
        answered(connection);
}

/* Whether the header is complete; then `missing` is the size of its payload. */
static bool header_took(struct connection *connection, unsigned char byte)
{
    unsigned char *header = connection->header;
    header[connection->header_size++] = byte;
    int size = connection->header_size < 2 ? 2 : (header[1] & SIZE) == 126 ? 4 : (header[1] & SIZE) == 127 ? 10 : 2;
    if (connection->header_size < size)
        return false;
    connection->missing = size == 2 ? header[1] & SIZE : 0;
    for (int i = 2; i < size; i++)
        connection->missing = connection->missing << 8 | header[i];
    connection->header_size = 0;
    if (header[0] & CONTROL)
        connection->control_size = 0;
    else {
        if (header[0] & OPCODE) {
            connection->is_text = (header[0] & OPCODE) == TEXT;
            connection->head_size = connection->message_size = 0;
        }
        connection->message_size += connection->missing;
    }
    return true;
}

/* Behind what was kept, as far as there is room. */
static void keep(char *kept, size_t *kept_size, size_t room, const char *bytes, size_t size)
{
    size_t fits = size < room - *kept_size ? size : room - *kept_size;
    memcpy(kept + *kept_size, bytes, fits);
    *kept_size += fits;
}

static void received(struct connection *connection, const char *bytes, size_t size)
{
    while (size > 0) {
        if (connection->missing == 0) {
            size--;
            if (header_took(connection, *bytes++) && connection->missing == 0)
                frame_ended(connection);
            continue;
        }
        size_t took = size < connection->missing ? size : connection->missing;
        if (connection->header[0] & CONTROL)
            keep(connection->control, &connection->control_size, CONTROL_BYTES_MAX, bytes, took);
        else
            keep(connection->head, &connection->head_size, HEAD_BYTES, bytes, took);
        bytes += took;
        size -= took;
        connection->missing -= took;
        if (connection->missing == 0)
            frame_ended(connection);
    }
}

void receive(struct connection *connection)
{
    static char bytes[RECEIVE_BYTES];
    ssize_t size = recv(connection->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (size > 0)
        received(connection, bytes, size);
    else if (size == 0 || (errno != EAGAIN && errno != EINTR))
        hung_up(connection);
}

void say_good_bye(struct connection *connection)
{
    write_all(connection, "\x88\x82\0\0\0\0\x03\xe8", 8);
}

void close_by(struct connection *connection, double until)
{
    struct pollfd wanted = {.fd = connection->fd, .events = POLLIN};
    char rest[4096];
    for (double left; (left = until - now()) > 0 && poll(&wanted, 1, (int)(left * 1000) + 1) > 0;)
        if (recv(connection->fd, rest, sizeof rest, MSG_DONTWAIT) <= 0)
            break;
    close(connection->fd);
}
