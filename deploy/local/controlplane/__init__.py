"""A real control plane on this machine, without containers: etcd, kube-apiserver, scheduler, controller-manager, kubectl.

``binaries`` finds or builds the programs, ``processes`` runs them so that none outlives us, ``plane`` wires them
up. For tests and the demo; never for anything else.
"""
