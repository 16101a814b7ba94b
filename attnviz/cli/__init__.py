"""The command line: the application, its commands, the jobs that they run, and what they print.

Arguments enter, and run folders, tables and messages leave. May import every other room; none imports this one.
"""
