"""Foreign forms <-> domain values: Kubernetes objects, engine tables, reports. Pure: plain values in, values out.

Belongs here: what a label, a field or a flag means. Does not belong here: fetching it (``shells``), or judging it
(``domain``). Files of facts are read from the package once.
"""
