"""Classification of images: experiments on task sequences, and how one is trained."""
