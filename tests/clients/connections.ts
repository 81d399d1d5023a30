// Where the examples run, and the credentials that may write there.
import { env } from 'node:process';

export interface Connection {
  baseUrl: string;
  headers: { authorization: string };
}

const connection = (base: string | undefined, token: string | undefined): Connection => {
  if (base === undefined || token === undefined) {
    throw new Error('ATLAS, ATLAS_TOKEN, SHOP and SHOP_TOKEN name the APIs and their tokens');
  }
  return { baseUrl: base, headers: { authorization: `Bearer ${token}` } };
};

export const atlas = (): Connection => connection(env.ATLAS, env.ATLAS_TOKEN);
export const shop = (): Connection => connection(env.SHOP, env.SHOP_TOKEN);
