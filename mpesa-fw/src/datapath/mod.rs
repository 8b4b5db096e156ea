//! Tables become a firewall: the only module that changes the kernel.
