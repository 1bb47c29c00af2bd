//! Sandboxes, IPAM, port leases, name service and firewall tables.
