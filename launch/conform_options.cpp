#include "launch/conform_options.h"

namespace conclave::launch {

void add_conform(CLI::App& app, Invocation& to) {
    app.add_option("--plugin", to.conform.plugin,
                   "Check what this plugin adds; without it, what is built in is checked (plugins "
                   "of the default directories are not loaded)")
        ->type_name("FILE");
    app.add_option("--checkpoint", to.conform.checkpoint,
                   "Check the matrices of this model, too, and the readers that open it; without "
                   "--plugin, them alone")
        ->type_name("DIR");
    app.add_option("--cases", to.conform.cases, "Cases of each law, from small to large")
        ->check(CLI::Range(int64_t{1}, int64_t{1000000}).description(""))
        ->type_name("N")
        ->default_str("60");
    app.add_option("--seed", to.conform.seed, "Of the random cases")
        ->type_name("S")
        ->default_str("1");
    app.add_option("--law", to.conform.law, "Check only laws whose names begin so")
        ->type_name("PREFIX")
        ->default_str("all");
    app.add_option("--format", to.conform.format, "Check only this format")
        ->type_name("NAME")
        ->default_str("all");
    app.add_flag("--list", to.conform_list, "Name the laws and what they ask, and check nothing");
    app.add_flag("--json", to.json, "Print one JSON object");
    app.add_flag("-v,--verbose", to.verbose, "Name the laws that hold, too");
}

const char* const kConformHelpFooter =
    R"(Every law is checked with random cases, small ones first; of one that is broken, the smallest case
found is printed with what was expected and what was found. Each law runs in a process of its own,
so that a crash or an endless loop is a broken law like any other.

Exit code: 0 where at least one law was checked and all hold, 1 where one is broken or none
could be checked.

  conclave conform --plugin build/my-format.so
  conclave conform --plugin build/my-format.so --checkpoint MODEL --cases 1000
  conclave conform --plugin build/my-format.so --law codec.interval -v
)";

}  // namespace conclave::launch
