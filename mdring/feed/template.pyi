"""Templates of messages, for native callers only. What a template is stands at the top of ``template.pyx``."""

class Form:
    """The form of a stream's messages, of one instrument."""
