"""The one exception that a person, not the program, can put right."""


class UserError(ValueError):
    """A mistake in input, configuration or order of stages: says what, where and what to do.

    Stages print its message without a traceback and exit with code 2.
    """
