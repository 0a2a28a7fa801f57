"""Pass@k, intervals, paired tests, plots, the HTML report and tree viewer."""
