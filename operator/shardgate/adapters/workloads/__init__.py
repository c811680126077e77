"""Workloads of every kind that declares inference -> serving groups.

``registry`` knows the kinds, one module each. A kind's module says where its pods, replicas and widths stand;
``serving`` reads a pod template, ``containers`` what a container runs, ``shell`` a script, ``engine_process`` which
engine that starts. What an object refers to is in ``library``; what is not there is unknown. Nothing is executed.
"""
