"""What ``shardgate doctor`` makes of what it read: checks of a live installation, pure.

Each module has the checks of one concern. Here belongs what an answer means; not how it was asked (``shells/doctor.py``).
"""
