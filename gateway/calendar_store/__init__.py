"""All SQL on the calendar's tables."""
