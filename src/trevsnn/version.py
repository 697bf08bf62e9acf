"""The version of this package, for whoever writes it down. It is read from here, so that it is known of a copied source, too."""

__version__ = "0.2.0"
