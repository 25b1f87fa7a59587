"""What teachers and students need: which mistake is this? which answer is right? Book: book/check."""

from clbook.course.check import Report, check
from clbook.course.child import check_file
from clbook.course.listing import listed, template
from clbook.course.quiz import quiz

__all__ = ["Report", "check", "check_file", "listed", "quiz", "template"]
