"""What teachers and students need: which mistake is this? Book: book/check."""

from clbook.course.check import Report, check
from clbook.course.child import check_file

__all__ = ["Report", "check", "check_file"]
