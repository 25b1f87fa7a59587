"""What teachers and students need: which mistake is this? Book: book/check."""

from clbook.course.check import Report, check
from clbook.course.child import check_file
from clbook.course.listing import listed, template

__all__ = ["Report", "check", "check_file", "listed", "template"]
