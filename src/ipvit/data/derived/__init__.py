"""Copies of a data set in another form on disk: in other textures, as cue-conflict images, or corrupted.

:class:`ipvit.data.derived.copy.DerivedCopy` says what determines a copy and what its files hold, the writer makes the
files in worker processes, and the folder keeps the manifest, the class lists and the contact sheet.
"""
