"""The layers that the network is made of."""
