"""iHAS: instance-wise gates, clusters of rows by them, and a right-sized model for every cluster."""
