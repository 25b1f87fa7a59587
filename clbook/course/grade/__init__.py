"""`clbook grade`: what was handed in is run where it can do no harm, and judged where it cannot reach. Book: book/grading."""
