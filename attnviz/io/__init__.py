"""Files: paths checked in one place, JSON and TOML read in one place, and everything written whole or not at all.

Enters: paths and bytes. Leaves: checked paths, plain Python values, files and folders that are whole. Imports
`attnviz.errors` alone.
"""
