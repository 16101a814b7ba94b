"""What differs between text-to-audio models, as data; the one room that knows a model's names and axes.

Input: a pipeline. Output: its family's record. It imports errors only.
"""
