#define _GNU_SOURCE
#include "load_job.h"

#include "load_socket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Stands for an empty text. */
static void forget_dash(char *text)
{
    if (strcmp(text, "-") == 0)
        *text = '\0';
}

bool read_job(struct job *job)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    while ((size = getline(&line, &room, stdin)) == 1) /* ended a job that had ended by itself */
        continue;
    if (size <= 0) {
        free(line);
        return false;
    }
    int found = sscanf(line, "%d %ld %ld %ld %lf %lf %lf %ld %lf %255s %8191s %ld", &job->port, &job->sockets, &job->in_flight,
        &job->window, &job->rate, &job->seconds, &job->warm_seconds, &job->count, &job->pause_seconds, job->expect, job->token,
        &job->frame_count);
    if (found != 12) {
        fputs("load client: what it was told is no job\n", stderr);
        exit(1);
    }
    forget_dash(job->expect);
    forget_dash(job->token);
    job->frames = required(calloc(job->frame_count + 1, sizeof *job->frames));
    for (long i = 0; i < job->frame_count && size > 0; i++)
        if ((size = getline(&line, &room, stdin)) > 0)
            job->frames[i] = framed(line, size - 1);
    free(line);
    return size > 0;
}

void forget_job(struct job *job)
{
    for (long i = 0; i < job->frame_count; i++)
        free(job->frames[i].bytes);
    free(job->frames);
}
