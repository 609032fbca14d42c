// The one stream of the driver's stand-in. It is lazy: what is put into it runs only when someone waits, in the order it was put in. So a host that
// does not wait sees memory as it was before, and a host that writes to pinned memory too early changes what the copy reads.
// SHIM_FAULT=NAME plants a fault between the program and the stand-ins: one kind of call is not made, as if the program had forgotten it.
#pragma once
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>

// Whether this fault is planted.
static bool planted(const char* fault) {
    static const char* const name = getenv("SHIM_FAULT");
    return name && !strcmp(name, fault);
}

// The driver may be called from any thread; what stands in for it does one thing at a time.
static std::mutex& one_at_a_time() {
    static std::mutex mutex;
    return mutex;
}
#define LOCK const std::lock_guard<std::mutex> lock(one_at_a_time())

static struct Stream {
    std::deque<std::function<void()>> waiting;
    // Pieces of work that were put in, and that ran.
    unsigned long queued = 0, done = 0;

    void put(std::function<void()> work) {
        waiting.push_back(std::move(work));
        queued++;
    }
    void run_until(unsigned long number) {
        while (done < number) {
            waiting.front()();
            waiting.pop_front();
            done++;
        }
    }
} stream;

// An event is a place in the stream, and the time in milliseconds at which the stream came there.
struct Event {
    unsigned long place = 0;
    double time = 0;

    void record() {
        stream.put([this] {
            const auto now = std::chrono::steady_clock::now().time_since_epoch();
            time = std::chrono::duration<double, std::milli>(now).count();
        });
        place = stream.queued;
    }
};
