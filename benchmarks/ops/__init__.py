"""One ``bench_<op>`` module an op, and the libraries that it is compared with."""
