"""What knowing only the category is worth, measured so that it can be subtracted.

``PictureClassifier`` reads the class off a decoded picture; it is fitted on true training pictures only.
``CategoryOnlyDecoder`` is the baseline that many a good-looking reconstruction is no better than: it classifies the
brain response and draws the mean training picture of that class.
"""

from __future__ import annotations

import numpy as np

from phosphene.errors import DataError
from phosphene.metrics.pixel import as_pictures
from phosphene.metrics.ties import first_best


class PictureClassifier:
    """Class of a picture: principal components of training pixels, then shrinkage LDA.

    Parameters
    ----------
    n_components : int, default 50
        most principal components kept; at most one less than the number of training pictures

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        labels that training has
    """

    def __init__(self, n_components: int = 50):
        self.n_components = n_components

    def fit(self, pictures: np.ndarray, labels: np.ndarray) -> PictureClassifier:
        """Fit on true training pictures; a decoded one among them would teach the classifier the decoder's faults.

        Parameters
        ----------
        pictures : ndarray of shape (n, height, width, channels)
            0 to 1
        labels : ndarray of shape (n,)
            class of each picture

        Returns
        -------
        PictureClassifier
            itself

        Raises
        ------
        DataError
            With fewer than two classes, or another number of labels than pictures.
        """
        self._reader = _ClassReader(self.n_components).fit(_flat(pictures), labels, "pictures")
        self.classes_ = self._reader.classes_
        return self

    def predict(self, pictures: np.ndarray) -> np.ndarray:
        """Class of each picture.

        Parameters
        ----------
        pictures : ndarray of shape (n, height, width, channels)
            0 to 1, of the size of the training pictures; NaN is read as the training mean of that pixel

        Returns
        -------
        ndarray of shape (n,)
            of ``classes_``
        """
        return self._reader.predict(_flat(pictures))


class CategoryOnlyDecoder:
    """Brain response to class to mean training picture of that class, and nothing more.

    Parameters
    ----------
    n_components : int, default 50
        most principal components of the training betas kept

    Attributes
    ----------
    pictures_ : dict
        mean training picture of each class, by its label
    """

    def __init__(self, n_components: int = 50):
        self.n_components = n_components

    def fit(self, betas: np.ndarray, labels: np.ndarray, pictures: np.ndarray) -> CategoryOnlyDecoder:
        """Fit on training rows.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            responses
        labels : ndarray of shape (n,)
            class of each row
        pictures : ndarray of shape (n, height, width, channels)
            true picture of each row, 0 to 1

        Returns
        -------
        CategoryOnlyDecoder
            itself

        Raises
        ------
        DataError
            With fewer than two classes, or another number of labels than rows.
        """
        self._reader = _ClassReader(self.n_components).fit(np.asarray(betas), labels, "betas")
        self.pictures_ = class_mean_pictures(pictures, labels)
        return self

    def predict_labels(self, betas: np.ndarray) -> np.ndarray:
        """Class read off each response.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            responses, in the unit of the training betas

        Returns
        -------
        ndarray of shape (n,)
            labels that training has
        """
        return self._reader.predict(np.asarray(betas))

    def decode(self, betas: np.ndarray) -> np.ndarray:
        """Mean training picture of the predicted class of each response.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            responses, in the unit of the training betas

        Returns
        -------
        ndarray of shape (n, height, width, channels)
            0 to 1
        """
        labels = self.predict_labels(betas).tolist()
        return np.stack([self.pictures_[label] for label in labels])


def class_mean_pictures(pictures: np.ndarray, labels: np.ndarray) -> dict:
    """Mean training picture of every class.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, channels)
        0 to 1
    labels : ndarray of shape (n,)
        class of each picture

    Returns
    -------
    dict
        label to picture, ndarray of shape (height, width, channels)

    Raises
    ------
    DataError
        For another number of labels than pictures.

    Examples
    --------
    >>> means = class_mean_pictures(np.array([0.0, 1, 1]).reshape(3, 1, 1, 1), np.array(["a", "a", "b"]))
    >>> means["a"].item(), means["b"].item()
    (0.5, 1.0)
    """
    pictures = as_pictures(pictures)
    labels = np.asarray(labels)
    if len(labels) != len(pictures):
        raise DataError(f"there are {len(pictures)} pictures but {len(labels)} labels; give one label per picture.")

    means = {}
    for label in np.unique(labels).tolist():
        means[label] = pictures[labels == label].mean(axis=0)  # (height, width, channels)

    return means


class _ClassReader:
    """Principal components fitted on training rows, then LDA with Ledoit-Wolf shrinkage and equal priors.

        points = (rows - mean) V',    class = argmax_c (points . w_c + b_c)

    Equal priors, because a class shown often in training must not be the answer to every weak response.
    """

    def __init__(self, n_components: int):
        self.n_components = n_components

    def fit(self, rows: np.ndarray, labels: np.ndarray, what: str) -> _ClassReader:
        """Fit on rows (n, n_features) and labels (n,); `what` names the rows in an error."""
        from sklearn.decomposition import PCA
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        rows = np.asarray(rows, dtype=np.float64)
        labels = np.asarray(labels)
        if labels.shape != (len(rows),):
            raise DataError(f"there are {len(rows)} rows of {what} but labels of shape {labels.shape}.")

        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2 or len(rows) < 3:
            raise DataError(
                f"reading a class off {what} needs two classes and three training rows, but there are {len(rows)} rows "
                f"of {self.classes_.tolist()[:5]}; leave category scores out for this data set."
            )

        # The full decomposition draws nothing at random, so the same data give the same classes.
        n_components = min(self.n_components, len(rows) - 1, rows.shape[1])
        pca = PCA(n_components, svd_solver="full").fit(rows)
        self.mean_ = pca.mean_
        self.components_ = np.asarray(pca.components_)  # (n_components, n_features)
        points = (rows - self.mean_) @ self.components_.T  # (n, n_components)

        priors = np.full(len(self.classes_), 1 / len(self.classes_))
        self._lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=priors)
        self._lda.fit(points, labels)
        return self

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """(n,) class of each row."""
        rows = np.asarray(rows, dtype=np.float64) - self.mean_
        points = np.where(np.isfinite(rows), rows, 0) @ self.components_.T  # (n, n_components)
        evidence = self._lda.decision_function(points)  # (n, n_classes), log odds
        if evidence.ndim == 1:  # of the second of two classes against the first
            evidence = np.stack([np.zeros_like(evidence), evidence], axis=1)

        # Classes that training pictures do not tell apart are tied; which of them is named must not be rounding's choice.
        return self.classes_[first_best(evidence, grain=1.0)]


def _flat(pictures: np.ndarray) -> np.ndarray:
    """(n, height * width * channels)."""
    pictures = as_pictures(pictures)
    return pictures.reshape(len(pictures), -1)
