"""ScienceWorld: the real simulator, in a Java process, as a text environment.

`simulator` runs the Java process, `tasks` lists what there is to do, `env` is
the world; `compact` and `expert` serve small policies on the four find tasks.
"""
