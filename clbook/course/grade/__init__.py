"""`clbook grade`: what was handed in is run where it can do no harm, and judged where it cannot reach. Book: book/grading."""


class MasterError(RuntimeError):
    """The master itself cannot be used, which is nobody's fault who handed something in."""


class GraderError(RuntimeError):
    """The grader itself could not do its work."""
