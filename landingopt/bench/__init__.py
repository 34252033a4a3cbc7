"""What ``landingopt bench`` measures: our methods against pymanopt's solvers, on equal terms."""
