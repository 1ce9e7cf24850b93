"""timm backbones by name, their weights from the hub or from files, their preprocessing: the only user of timm."""
