// Compares every table of kernels that this machine runs with the scalar one, bit for bit.
//
// Arguments, if there are any, name the tables that must be available, the best first.
#include <unistd.h>

#include <csignal>

#include "core/context.h"
#include "tests/support.h"

namespace moestream::check {
namespace {

extern "C" void died(int signal) {
    // Nothing but this is safe to do here.
    const std::string& what = progress().what;
    static constexpr char kText[] = ": touched memory that is not its own\n";
    if (write(1, what.data(), what.size()) < 0 || write(1, kText, sizeof kText - 1) < 0) _exit(2);
    _exit(128 + signal);
}

bool is_expected(const std::vector<const char*>& available, int count, char** names) {
    bool equal = available.size() == static_cast<size_t>(count);
    for (int i = 0; equal && i < count; ++i) equal = std::strcmp(available[i], names[i]) == 0;
    if (equal) return true;
    std::printf("available kernels are");
    for (const char* name : available) std::printf(" %s", name);
    std::printf(", expected");
    for (int i = 0; i < count; ++i) std::printf(" %s", names[i]);
    std::printf("\n");
    return false;
}

int run(int count, char** names) {
    std::vector<const char*> available, ignored;
    choose_kernels(nullptr, &available);
    if (count > 0 && !is_expected(available, count, names)) return 1;
    for (const char* name : available) {
        const Kernels& kernels = *choose_kernels(name, &ignored);
        const Progress before = progress();
        check_products(kernels);
        check_packed_products(kernels);
        check_quantisation(kernels);
        check_elementwise(kernels);
        check_attention(kernels);
        std::printf("%s: %ld cases, %ld not as scalar\n", name, progress().cases - before.cases,
                    progress().failures - before.failures);
    }
    return progress().failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace moestream::check

int main(int argc, char** argv) {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    std::signal(SIGSEGV, moestream::check::died);
    std::signal(SIGBUS, moestream::check::died);
    return moestream::check::run(argc - 1, argv + 1);
}
