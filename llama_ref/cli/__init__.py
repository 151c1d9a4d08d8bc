"""The verbs of the command line, one a module; `llama_ref.__main__` imports the one that is asked.

A verb is a module with

    DESCRIPTION         what it does, for --help
    EXAMPLE             a command or two that work, for --help
    add_arguments       (parser) -> None
    run                 (options) -> exit code: 0 good, 1 a finding

and an error of this library raised in `run` becomes one line and exit code 2. Results go to
standard output, everything about the way there (progress, warnings, errors) to standard error.
"""
