"""What report.html shows: figures on the tables of a dataset, as arrays and plain rows, and the plots that draw them."""
