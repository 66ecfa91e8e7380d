"""The other libraries, measured in the same run. mdring never imports them, and these programs never import mdring.

``environment.py`` finds or makes the interpreter that has them; the other modules are programs for that interpreter,
which print what they measured as JSON.
"""
