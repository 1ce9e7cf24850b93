"""Experimental: a dispatcher, a router, experts for clusters of images, and the combination of their features."""
