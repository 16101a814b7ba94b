"""Check paths, read JSON and TOML, and write files and folders atomically.

Input: paths and bytes. Output: checked paths, Python values, complete files and folders. Imports only
`attnviz.errors`.
"""
