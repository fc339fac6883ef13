/* A backend of Triton that answers as NVIDIA's `tensorrt_llm` does: one response for each token, sent by the
 * server's own process. Each running request gets a token of a fixed text every so many seconds.
 *
 * Compiled with -DPERIOD_NS=…, -DTOKENS=1,2,3. It answers `probe` and `stop` as our engine does. Declared here is
 * what is used of Triton's C API (tritonbackend.h), which the wheel does not bring.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void Error, Instance, Request, Input, Factory, Response, Output;
enum { BOOL = 1, INT32 = 8, INT64 = 9, FINAL = 1, RELEASE_ALL = 1 };

void TRITONSERVER_ErrorDelete(Error *);
Error *TRITONBACKEND_RequestId(Request *, const char **);
Error *TRITONBACKEND_RequestInput(Request *, const char *, Input **);
Error *TRITONBACKEND_RequestRelease(Request *, uint32_t);
Error *TRITONBACKEND_InputBuffer(Input *, uint32_t, const void **, uint64_t *, int *, int64_t *);
Error *TRITONBACKEND_ResponseFactoryNew(Factory **, Request *);
Error *TRITONBACKEND_ResponseFactoryDelete(Factory *);
Error *TRITONBACKEND_ResponseFactorySendFlags(Factory *, uint32_t);
Error *TRITONBACKEND_ResponseNewFromFactory(Response **, Factory *);
Error *TRITONBACKEND_ResponseOutput(Response *, Output **, const char *, int, const int64_t *, uint32_t);
Error *TRITONBACKEND_OutputBuffer(Output *, void **, uint64_t, int *, int64_t *);
Error *TRITONBACKEND_ResponseSend(Response *, uint32_t, Error *);

typedef struct Running {
  struct Running *next;
  Factory *factory;
  char *id;
  int32_t made, wanted;
  bool stopped;
} Running;

static const int32_t text[] = {TOKENS};
static Running *running;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t came = PTHREAD_COND_INITIALIZER;
static pthread_t stepper;
static bool closing;

/* Whether the call went well. */
static bool ok(Error *error) {
  if (error) TRITONSERVER_ErrorDelete(error);
  return !error;
}

/* The first bytes of an input; whether the request has it. */
static bool read_input(Request *request, const char *name, void *value, size_t size) {
  Input *input;
  const void *data;
  uint64_t bytes;
  int memory = 0;
  int64_t device = 0;
  if (!ok(TRITONBACKEND_RequestInput(request, name, &input))) return false;
  if (!ok(TRITONBACKEND_InputBuffer(input, 0, &data, &bytes, &memory, &device)) || bytes < size) return false;
  memcpy(value, data, size);
  return true;
}

static void add(Response *response, const char *name, int type, const void *value, size_t size, uint32_t dims) {
  const int64_t shape[] = {1, 1, 1};
  Output *output;
  void *data;
  int memory = 0;
  int64_t device = 0;
  if (ok(TRITONBACKEND_ResponseOutput(response, &output, name, type, shape, dims)) &&
      ok(TRITONBACKEND_OutputBuffer(output, &data, size, &memory, &device)))
    memcpy(data, value, size);
}

static void send_token(Running *one) {
  const int32_t token = text[one->made % (sizeof text / sizeof *text)], length = 1;
  Response *response;
  if (!ok(TRITONBACKEND_ResponseNewFromFactory(&response, one->factory))) return;
  add(response, "output_ids", INT32, &token, sizeof token, 3);
  add(response, "sequence_length", INT32, &length, sizeof length, 2);
  one->made++;
  ok(TRITONBACKEND_ResponseSend(response, one->made >= one->wanted ? FINAL : 0, NULL));
}

static void *step(void *unused) {
  struct timespec due;
  clock_gettime(CLOCK_MONOTONIC, &due);
  for (;;) {
    pthread_mutex_lock(&lock);
    while (!running && !closing) pthread_cond_wait(&came, &lock);
    if (closing) break;
    pthread_mutex_unlock(&lock);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t late = (now.tv_sec - due.tv_sec) * 1000000000LL + now.tv_nsec - due.tv_nsec;
    if (late > 2LL * PERIOD_NS) due = now; /* a late step is made up for, at most one */
    due.tv_nsec += PERIOD_NS;
    due.tv_sec += due.tv_nsec / 1000000000;
    due.tv_nsec %= 1000000000;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    pthread_mutex_lock(&lock);
    for (Running **place = &running; *place;) {
      Running *one = *place;
      if (one->stopped)
        ok(TRITONBACKEND_ResponseFactorySendFlags(one->factory, FINAL));
      else
        send_token(one);
      if (one->stopped || one->made >= one->wanted) {
        *place = one->next;
        TRITONBACKEND_ResponseFactoryDelete(one->factory);
        free(one->id);
        free(one);
      } else {
        place = &one->next;
      }
    }
    pthread_mutex_unlock(&lock);
  }
  pthread_mutex_unlock(&lock);
  return unused;
}

static void take(Request *request) {
  const char *id = "";
  bool flag = false;
  Factory *factory;
  ok(TRITONBACKEND_RequestId(request, &id));
  if (!ok(TRITONBACKEND_ResponseFactoryNew(&factory, request))) return;
  if (read_input(request, "stop", &flag, 1) && flag) {
    for (Running *one = running; one; one = one->next)
      if (!strcmp(one->id, id)) one->stopped = true;
  } else if (read_input(request, "probe", &flag, 1) && flag) {
    const int64_t stalled = 0;
    Response *response;
    if (ok(TRITONBACKEND_ResponseNewFromFactory(&response, factory))) {
      add(response, "stalled_ms", INT64, &stalled, sizeof stalled, 2);
      ok(TRITONBACKEND_ResponseSend(response, 0, NULL));
    }
  } else {
    Running *one = calloc(1, sizeof *one);
    *one = (Running){.next = running, .factory = factory, .id = strdup(id), .wanted = 1};
    read_input(request, "request_output_len", &one->wanted, sizeof one->wanted);
    running = one;
    pthread_cond_signal(&came);
    return;
  }
  ok(TRITONBACKEND_ResponseFactorySendFlags(factory, FINAL));
  TRITONBACKEND_ResponseFactoryDelete(factory);
}

Error *TRITONBACKEND_ModelInstanceInitialize(Instance *instance) {
  closing = false;
  pthread_create(&stepper, NULL, step, NULL);
  return NULL;
}

Error *TRITONBACKEND_ModelInstanceFinalize(Instance *instance) {
  pthread_mutex_lock(&lock);
  closing = true;
  pthread_cond_signal(&came);
  pthread_mutex_unlock(&lock);
  pthread_join(stepper, NULL);
  return NULL;
}

Error *TRITONBACKEND_ModelInstanceExecute(Instance *instance, Request **requests, const uint32_t count) {
  for (uint32_t at = 0; at < count; at++) {
    pthread_mutex_lock(&lock);
    take(requests[at]);
    pthread_mutex_unlock(&lock);
    ok(TRITONBACKEND_RequestRelease(requests[at], RELEASE_ALL));
  }
  return NULL;
}
