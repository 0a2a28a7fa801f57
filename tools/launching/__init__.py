"""What clouds and schedulers are told, each from one description of a job."""
