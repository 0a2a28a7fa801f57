"""What a run takes before it runs: memory, programs, roofline."""
