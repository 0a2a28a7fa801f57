"""ALFWorld: household tasks in text, judged by the real planning engine.

See `env.make` for the options, `engine` for how states are kept.
"""
