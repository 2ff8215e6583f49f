"""Development servers without containers.

In the order of the data: `cli` reads the command line, `stack` keeps one named set of
servers, `servers` knows how each is configured, `downloads` gets them from the package
registries, `processes` starts and stops them, `probes` asks whether they truly answer.
"""
