"""The models: what differs between families as data, the pipelines of Auffusion and Tango, and their checkpoints.

Input: a checkpoint folder or a pipeline. Output: a pipeline, or the record of its family. Only this room knows the
names and axes of a model. It imports audio and text.
"""
