-- How far a worker has come with the changes of the directory: it goes on from there after a restart.
CREATE TABLE "worker_positions" (
    "name" TEXT NOT NULL,
    "version" BIGINT NOT NULL,

    CONSTRAINT "worker_positions_pkey" PRIMARY KEY ("name")
);
